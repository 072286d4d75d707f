"""Questions for the simulated pool, in the manner of the four benchmarks.

Word problems and exams, some of them in Chinese.

A question shows two things that decide who answers it, so that an encoder and a router have
something to learn: its topic, in its words, and its level, in how it is put.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NUM_TOPICS = 8
# From the easiest to the hardest quarter.
NUM_LEVELS = 4
# How often a question that was asked before is drawn again.
_ATTEMPTS = 20


class Question(NamedTuple):
    """A question and its possible answers.

    Use this when you read what `questions` returns.

    Attributes:
      text: As a model would be asked it.
      right: The right answer.
      wrong: Wrong answers, the most tempting first.
    """

    text: str
    right: str
    wrong: tuple[str, ...]


class _Topic(NamedTuple):
    """A relation, and pairs it holds between: each subject has the answer beside it."""

    name: str
    relation: str
    pairs: tuple[tuple[str, str], ...]


def _topic(name: str, relation: str, pairs: str) -> _Topic:
    return _Topic(
        name, relation, tuple((a, b) for a, b in (pair.split(": ") for pair in pairs.split("; ")))
    )


_MMLU = (
    _topic(
        "anatomy",
        "is found in which part of the body",
        "the femur: the thigh; the cochlea: the ear; the alveoli: the lungs; the retina: the eye; "
        "the ulna: the forearm; the nephron: the kidney; the mitral valve: the heart; the "
        "incus: the skull",
    ),
    _topic(
        "astronomy",
        "is best described as",
        "Titan: a moon of Saturn; Ceres: a dwarf planet; Sirius: a binary star; Andromeda: a "
        "spiral galaxy; "
        "Halley: a comet; the Crab: a supernova remnant; Betelgeuse: a red supergiant; Vesta: "
        "an asteroid",
    ),
    _topic(
        "chemistry",
        "has which chemical symbol",
        "sodium: Na; potassium: K; iron: Fe; gold: Au; silver: Ag; tin: Sn; lead: Pb; tungsten: W",
    ),
    _topic(
        "geography",
        "has which capital",
        "Kenya: Nairobi; Norway: Oslo; Peru: Lima; Vietnam: Hanoi; Canada: Ottawa; Ghana: Accra; "
        "Hungary: Budapest; Jordan: Amman",
    ),
    _topic(
        "computer science",
        "runs in which time",
        "binary search: O(log n); merge sort: O(n log n); bubble sort: O(n^2); a hash look-up: "
        "O(1); "
        "naive matrix multiplication: O(n^3); listing all subsets: O(2^n); trying all orders: "
        "O(n!); "
        "finding a maximum: O(n)",
    ),
    _topic(
        "law",
        "is the name of which wrong",
        "battery: an unlawful touching; libel: a written defamation; slander: a spoken defamation; "
        "trespass: an entry without permission; conversion: a taking of goods; "
        "nuisance: a disturbance of enjoyment; perjury: a lie under oath; arson: a burning of "
        "property",
    ),
    _topic(
        "philosophy",
        "is the author of which work",
        "Plato: the Republic; Kant: the Critique of Pure Reason; Hume: the Treatise of Human "
        "Nature; "
        "Hobbes: Leviathan; Mill: Utilitarianism; Spinoza: the Ethics; Descartes: the Meditations; "
        "Locke: the Two Treatises",
    ),
    _topic(
        "economics",
        "is the term for which situation",
        "monopoly: one seller; monopsony: one buyer; oligopoly: a few sellers; inflation: "
        "rising prices; "
        "deflation: falling prices; a deficit: spending above revenue; a tariff: a tax on imports; "
        "a subsidy: a payment to producers",
    ),
)
_CMMLU = (
    _topic(
        "文学",
        "的作者是",
        "《红楼梦》: 曹雪芹; 《西游记》: 吴承恩; 《水浒传》: 施耐庵; 《呐喊》: 鲁迅; "
        "《家》: 巴金; 《茶馆》: 老舍; 《子夜》: 茅盾; 《边城》: 沈从文",
    ),
    _topic(
        "地理",
        "的省会是",
        "四川: 成都; 湖北: 武汉; 广东: 广州; 山东: 济南; "
        "陕西: 西安; 浙江: 杭州; 云南: 昆明; 福建: 福州",
    ),
    _topic(
        "历史",
        "的建立者是",
        "秦朝: 嬴政; 西汉: 刘邦; 东汉: 刘秀; 隋朝: 杨坚; "
        "唐朝: 李渊; 北宋: 赵匡胤; 元朝: 忽必烈; 明朝: 朱元璋",
    ),
    _topic(
        "中医",
        "的主要功效是",
        "人参: 大补元气; 黄连: 清热燥湿; 当归: 补血活血; 麻黄: 发汗解表; "
        "大黄: 泻下攻积; 茯苓: 利水渗湿; 陈皮: 理气健脾; 酸枣仁: 养心安神",
    ),
    _topic(
        "化学",
        "的化学符号是",
        "钠: Na; 钾: K; 铁: Fe; 金: Au; 银: Ag; 锡: Sn; 铅: Pb; 钨: W",
    ),
    _topic(
        "法律",
        "属于哪一类权利",
        "肖像权: 人格权; 抵押权: 担保物权; 地役权: 用益物权; 债权: 请求权; "
        "专利权: 知识产权; 继承权: 财产权; 监护权: 身份权; 选举权: 政治权利",
    ),
    _topic(
        "民俗",
        "的传统食品是",
        "端午节: 粽子; 中秋节: 月饼; 元宵节: 汤圆; 腊八节: 腊八粥; "
        "春节: 饺子; 清明节: 青团; 重阳节: 重阳糕; 冬至: 羊肉汤",
    ),
    _topic(
        "计算机",
        "的英文缩写是",
        "中央处理器: CPU; 随机存储器: RAM; 操作系统: OS; 局域网: LAN; "
        "图形处理器: GPU; 数据库: DB; 只读存储器: ROM; 人工智能: AI",
    ),
)
_ARC = (
    _topic(
        "states of matter",
        "is an example of which change",
        "ice turning to water: melting; water turning to ice: freezing; dew on the grass: "
        "condensation; "
        "a puddle drying: evaporation; dry ice smoking: sublimation; iron turning brown: rusting; "
        "wood turning to ash: burning; sugar stirred into tea: dissolving",
    ),
    _topic(
        "organisms",
        "is which kind of living thing",
        "a frog: an amphibian; a whale: a mammal; a snake: a reptile; a trout: a fish; a "
        "sparrow: a bird; "
        "a beetle: an insect; a mushroom: a fungus; a fern: a plant",
    ),
    _topic(
        "energy",
        "turns electric energy mostly into what",
        "a lamp: light; a toaster: heat; a fan: motion; a loudspeaker: sound; a charger: "
        "chemical energy; "
        "an electromagnet: magnetism; an elevator: potential energy; an antenna: radio waves",
    ),
    _topic(
        "instruments",
        "measures which quantity",
        "a barometer: air pressure; a thermometer: temperature; an anemometer: wind speed; a "
        "balance: mass; "
        "a ruler: length; a stopwatch: time; a spring scale: force; an ammeter: current",
    ),
    _topic(
        "the Earth",
        "is formed by which process",
        "a canyon: erosion by a river; a volcano: rising magma; a delta: deposition of "
        "sediment; a dune: wind; "
        "a glacier valley: moving ice; a fossil: burial of remains; a cave: dissolving limestone; "
        "a mountain range: colliding plates",
    ),
    _topic(
        "the body",
        "has which job in the body",
        "the heart: pumping blood; a lung: taking in oxygen; the stomach: digesting food; "
        "a kidney: filtering blood; the skin: protecting from germs; a muscle: moving bones; "
        "the brain: sending signals; a bone: supporting the body",
    ),
    _topic(
        "ecosystems",
        "has which role in a food chain",
        "grass: a producer; a rabbit: a herbivore; a hawk: a predator; a bacterium in soil: a "
        "decomposer; "
        "a bear: an omnivore; a vulture: a scavenger; a flea: a parasite; a mouse: prey",
    ),
    _topic(
        "materials",
        "is useful because it is what",
        "copper: a conductor of electricity; rubber: an insulator; glass: transparent; steel: "
        "strong; "
        "cork: light enough to float; a sponge: absorbent; diamond: hard; wool: a keeper of warmth",
    ),
)
_NAMES = (
    "Maria",
    "Felipe",
    "Aisha",
    "Tom",
    "Mei",
    "Olga",
    "Juan",
    "Ravi",
    "Hannah",
    "Kofi",
    "Lena",
    "Omar",
    "Nora",
    "Yuki",
)
_PLACES = (
    "in class",
    "on a field trip",
    "at home",
    "in a laboratory",
    "at a museum",
    "for a project",
    "in a garden",
)

# Word problems: who does what with what.
_GSM8K = (
    ("buys", "pencils", "shop", "dollars"),
    ("bakes", "muffins", "oven tray", "minutes"),
    ("drives", "miles", "hour", "litres"),
    ("saves", "coins", "week", "cents"),
    ("collects", "eggs", "day", "hens"),
    ("reads", "pages", "evening", "chapters"),
    ("scores", "points", "game", "fouls"),
    ("plants", "tulips", "row", "buckets of water"),
)


class _Draw(NamedTuple):
    """The chances of one question.

    Attributes:
      pairs: Which pairs of the topic stand as choices, the right one first.
      order: The order of the choices.
      numbers: Whole numbers of at least 0.
    """

    pairs: list[int]
    order: list[int]
    numbers: list[int]


def questions(
    rng: np.random.Generator, benchmark: str, topics: np.ndarray, levels: np.ndarray
) -> list[Question]:
    """Questions of a benchmark, drawn at random, no two with the same text.

    Use this when you need invented questions with known answers.

    Args:
      rng: Draws them.
      benchmark: `gsm8k`, `mmlu`, `cmmlu` or `arc_challenge`.
      topics: Topic of each question, 0 to `NUM_TOPICS` - 1, `[n]`.
      levels: Level of each question, 0 to `NUM_LEVELS` - 1, `[n]`.

    Returns:
      The questions. Where a benchmark has fewer than are asked for, they are numbered to stay
      apart.
    """
    maker, result = _MAKERS[benchmark], [Question("", "", ())] * len(topics)
    rest, texts = list(range(len(topics))), set[str]()
    for attempt in range(_ATTEMPTS):
        pairs = rng.permuted(np.tile(np.arange(8), (len(rest), 1)), axis=1)[:, :4].tolist()
        order = rng.permuted(np.tile(np.arange(4), (len(rest), 1)), axis=1).tolist()
        numbers = rng.integers(1 << 30, size=(len(rest), 6)).tolist()
        again = []
        for i, *numbers_of_draw in zip(rest, pairs, order, numbers, strict=True):
            question = maker(_Draw(*numbers_of_draw), int(topics[i]), int(levels[i]))
            if question.text in texts and attempt == _ATTEMPTS - 1:
                question = question._replace(text=f"({i + 1}) {question.text}")
            if question.text in texts:
                again.append(i)
            else:
                texts.add(question.text)
                result[i] = question
        rest = again
        if not rest:
            break
    return result


def _choices(draw: _Draw, topic: _Topic) -> tuple[str, list[str], Question]:
    """A subject of a topic, four answers as drawn, and the letters of right and wrong ones."""
    letters = ["ABCD"[draw.order.index(i)] for i in range(4)]
    options = [topic.pairs[draw.pairs[i]][1] for i in draw.order]
    return topic.pairs[draw.pairs[0]][0], options, Question("", letters[0], tuple(letters[1:]))


def _lettered(options: list[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))


def _mmlu(draw: _Draw, topic: int, level: int) -> Question:
    about = _MMLU[topic]
    subject, options, answer = _choices(draw, about)
    stem = (
        f"In {about.name}, {subject} {about.relation}?",
        f"Which of the following is right? In {about.name}, {subject} {about.relation}?",
        f"According to the standard account in {about.name}, {subject} {about.relation}?",
        f"A textbook of {about.name} rejects three of these choices and keeps one. By it, "
        f"{subject} {about.relation}?",
    )[level]
    return answer._replace(text=f"{stem}\n{_lettered(options)}")


def _cmmlu(draw: _Draw, topic: int, level: int) -> Question:
    about = _CMMLU[topic]
    subject, options, answer = _choices(draw, about)
    stem = (
        f"{subject}{about.relation}",
        f"下列选项中，{subject}{about.relation}",
        f"根据{about.name}学科的通常说法，{subject}{about.relation}",
        f"在{about.name}考试中，下列四项只有一项正确，其余均为干扰项。{subject}{about.relation}",
    )[level]
    return answer._replace(text=f"{stem}\n{_lettered(options)}\n答案：")


def _arc(draw: _Draw, topic: int, level: int) -> Question:
    about = _ARC[topic]
    # as in the corpus, the text does not show the choices
    subject, _, answer = _choices(draw, about)
    name, place = _NAMES[draw.numbers[0] % len(_NAMES)], _PLACES[draw.numbers[1] % len(_PLACES)]
    stem = (
        f"{name} learns about {about.name} {place}. What does {name} find: {subject} "
        f"{about.relation}?",
        f"{name} studies {about.name} {place}. Which answer is best supported: {subject} "
        f"{about.relation}?",
        f"{name} compares several examples of {about.name} {place}. What explains best: {subject} "
        f"{about.relation}?",
        f"{name} designs an investigation of {about.name} {place}, and repeats it. Which "
        f"conclusion would most likely "
        f"follow: {subject} {about.relation}?",
    )[level]
    return answer._replace(text=f"Question:{stem}\nAnswer:")


def _gsm8k(draw: _Draw, topic: int, level: int) -> Question:
    verb, things, unit, other = _GSM8K[topic]
    name = _NAMES[draw.numbers[0] % len(_NAMES)]
    size, times, more, fewer, worth = (2 + number % 58 for number in draw.numbers[1:])
    total = size * times
    parts = [f"{name} {verb} {size} {things} in each {unit}, for {times} of them."]
    if level >= 1:
        total += more
        parts.append(f"Then {name} gets {more} more {things} from a friend.")
    if level >= 2:
        fewer = min(fewer, total)
        total -= fewer
        parts.append(f"After that {name} gives away {fewer} {things}.")
    if level >= 3:
        total *= worth
        parts.append(
            f"Every one of the {things} left stands for {worth} {other}, and only these count now."
        )
    parts.append(f"How many {other if level >= 3 else things} does {name} have at the end?")
    slips = (size + times, total + more, total + 1, 2 * total + 1)
    return Question(
        " ".join(parts), str(total), tuple(str(slip) for slip in slips if slip != total)
    )


_MAKERS: dict[str, Callable[[_Draw, int, int], Question]] = {
    "gsm8k": _gsm8k,
    "mmlu": _mmlu,
    "cmmlu": _cmmlu,
    "arc_challenge": _arc,
}

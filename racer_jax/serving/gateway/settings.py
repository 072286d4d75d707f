"""The configuration of the gateway, as types: what can be set, its defaults and bounds."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from racer_jax.serving.gateway._secrets import Secret

Mode = Literal["vote", "select", "synthesize", "all", "cascade"]
Capability = Literal["tools", "json", "images", "audio", "files", "n", "logprobs"]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Dollars = Annotated[float, Meta(ge=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Role = Literal["infer", "feedback", "feedback:audit", "admin"]
Override = Literal[
    "alpha", "group", "mode", "max_models", "max_cost", "deadline_ms", "on_abstain", "verbose",
    "session",
]  # fmt: skip


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration: a field that is not known is refused."""


class Server(_Section, frozen=True):
    """Where it listens, and the bounds on a request.

    Use this when a request is too long for you, or the gateway shall be reached from elsewhere.

    Attributes:
      host: Address of the inference port; one of another machine needs keys.
      port: The inference port; 0 for a free one.
      admin_host: Address of the management port.
      admin_port: The management port; 0 for a free one.
      allowed_hosts: Further names that requests may use for this server, in their header `host`.
      max_body_bytes: The longest request.
      max_header_bytes: The longest headers of a request, all together.
      max_messages: Messages of a request at most.
      header_seconds: Time for the headers of a request to come.
      body_seconds: Time for its body.
      max_in_flight: Requests under way at most; others get 503.
      deadline_seconds: The time that a request may take as a whole.
      heartbeat_seconds: Between signs of life in a stream that waits for several models.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    admin_host: str = "127.0.0.1"
    admin_port: Port = 8081
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: Positive = 4 << 20
    max_header_bytes: Positive = 32 << 10
    max_messages: Positive = 2000
    header_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    max_in_flight: Positive = 1024
    deadline_seconds: Seconds = 120.0
    heartbeat_seconds: Seconds = 5.0


class Deployment(_Section, frozen=True):
    """One place where a model can be called.

    Use this when the same model is served in two places.

    Attributes:
      base_url: Such as `https://api.openai.com/v1`.
      api_key: A reference, `${VAR}` or `${file:PATH}`; None for a server that needs none.
      name: The model's name there; that of the pool where None.
      insecure: Whether plain HTTP to another machine is allowed.
    """

    base_url: str
    api_key: Secret | None = None
    name: str | None = None
    insecure: bool = False


class Model(Deployment, frozen=True):
    """A model, named as in the pool of an artefact.

    Use this when you say where a model of a pool is called, and how long to wait for it.

    Attributes:
      also: Other places of the same model, tried when the first fails.
      tries: Calls at most before the model counts as failed, over all places.
      connect_seconds: Time to reach it.
      first_seconds: Time until its first byte.
      total_seconds: Time until its last byte.
      max_reply_bytes: The longest reply.
      capabilities: What requests it can answer beside plain text; `files` are the parts of a
        message that are no text, image or sound.
      dollars_in: Dollars per million tokens of a prompt.
      dollars_out: Dollars per million tokens of an answer.
      longest_answer: Tokens of an answer at most, where a request sets no limit; it is not sent.
        With it and both prices, a daily budget knows what a request may cost at most.
      hedge: Whether a call that takes longer than 95% of those before it is made at the next place
        of `also` too, and the sooner answer counts; at most one call in twenty.
      breaker_failures: Failures in a row after which it counts as down.
      breaker_seconds: Time after which one request tries it again.
    """

    also: tuple[Deployment, ...] = ()
    tries: Annotated[int, Meta(ge=1, le=10)] = 2
    connect_seconds: Seconds = 5.0
    first_seconds: Seconds = 60.0
    total_seconds: Seconds = 120.0
    max_reply_bytes: Positive = 32 << 20
    capabilities: tuple[Capability, ...] = ("tools", "json", "n", "logprobs")
    dollars_in: Dollars | None = None
    dollars_out: Dollars | None = None
    longest_answer: Positive | None = None
    hedge: bool = False
    breaker_failures: Positive = 5
    breaker_seconds: Seconds = 30.0


class Verifier(_Section, frozen=True):
    """A test of answers: models of the set are called one after another until it accepts one.

    Use this when answers can be tested, such as code by its tests.

    Attributes:
      url: An address that gets `{"model", "messages", "message"}` and says `{"accepted": true}`.
      command: A program in the place of an address, without a shell: it reads the same, and its
        exit status 0 accepts the answer, 1 does not.
      sound: Whether it accepts right answers alone. Only then does the promise hold.
      seconds: Time for one test.
    """

    url: str | None = None
    command: tuple[str, ...] | None = None
    sound: bool = False
    seconds: Seconds = 30.0


class Route(_Section, frozen=True):
    """A name that clients ask for, `racer/NAME`, and how its requests are answered.

    Use this when clients shall be able to ask for the models of an artefact.

    Attributes:
      artefact: Folder of a calibrated artefact, relative to the configuration.
      mode: How several answers become one; where None `vote` if the artefact has a normal form and
        suits votes, `cascade` for a cascade, else `select`.
      modes: Ways that a client may ask for.
      form: Normal form of answers, where the artefact does not say it.
      view: Which text of a conversation is routed, `last_user`, `all_user` or `template:` and a
        text with `{system}`, `{first_user}`, `{last_user}`, `{all_user}`: it must be the text
        calibrated on.
      multi_turn: Whether a conversation of several turns is of a group of its own (`multi_turn`),
        or is `same`, as it was among the calibration queries.
      judge: The model that picks in `select` and writes in `synthesize`.
      judge_logprobs: Whether the judge is asked for the probability of what it writes: that of the
        number it picks is then in the answer, `racer.judge_probability`. Some servers refuse it.
      fallback: The model that answers where the racer abstains; the best single where None.
      on_abstain: What an empty set leads to.
      on_unknown_group: What a group nobody calibrated on leads to; `pooled` is without a promise.
      on_alarm: What a monitor's alarm leads to.
      max_models: Models called for a request at most.
      max_cost: Dollars that the calls of a request may be expected to cost: by the costs of the
        artefact, and by prices for the length of the prompt.
      alphas: Levels a client may ask for beside the artefact's.
      group: Group of requests that name none, one that the artefact has.
      allow_infeasible: Whether it starts though alpha is infeasible: every model is called then.
      cache_seconds: Seconds for which an answer is kept for the same request of the same client, at
        temperature 0, without tools and not streamed; none is kept where None.
      verifier: The test of `cascade`, where the artefact is none of a cascade.
      shadow: A model that answers every request while the racer only decides; None to answer.
    """

    artefact: str
    mode: Mode | None = None
    modes: tuple[Mode, ...] = ("vote", "select", "all")
    form: Name | None = None
    view: str = "last_user"
    multi_turn: Literal["own_group", "same"] = "own_group"
    judge: Name | None = None
    judge_logprobs: bool = False
    fallback: Name | None = None
    on_abstain: Literal["fallback", "error", "refusal"] = "fallback"
    on_unknown_group: Literal["all", "error", "pooled"] = "all"
    on_alarm: Literal["warn", "call_all", "fallback"] = "warn"
    max_models: Positive | None = None
    max_cost: Dollars | None = None
    alphas: tuple[str, ...] = ()
    group: Name | None = None
    allow_infeasible: bool = False
    cache_seconds: Seconds | None = None
    verifier: Verifier | None = None
    shadow: Name | None = None


class Key(_Section, frozen=True):
    """A key of a client: `racer-jax serve --new-key NAME` prints one and these lines.

    Use this when somebody on another machine may ask.

    Attributes:
      prefix: The public part of the key, 8 characters.
      sha256: The hash of the whole key, 64 hexadecimal digits.
      roles: What it may do.
      overrides: Fields of `racer` that its requests may set.
      groups: Groups it may name; all where None.
      alphas: Levels it may ask for, of those that a route publishes; all where None.
      per_minute: Requests it may send in a minute, to each replica; no limit where None.
      daily_dollars: What its requests may cost in a day (UTC).
    """

    prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9]{8}$")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    roles: tuple[Role, ...] = ("infer", "feedback")
    overrides: tuple[Override, ...] = ("group", "mode", "verbose")
    groups: tuple[str, ...] | None = None
    alphas: tuple[str, ...] | None = None
    per_minute: Positive | None = None
    daily_dollars: Dollars | None = None


class Experiment(_Section, frozen=True):
    """Routes that are compared on live traffic: whoever asks for it gets one of them.

    Use this when a new artefact, or another way of answering, shall prove itself on some traffic.

    Attributes:
      arms: Share of each route, up to a factor. A conversation (`racer.session`), else a `user`,
        else a key, else a request gets the same route every time.
    """

    arms: Annotated[dict[Name, Annotated[float, Meta(gt=0, le=1e9)]], Meta(min_length=2)]


class State(_Section, frozen=True):
    """What is kept.

    Use this when you choose where decisions are kept, and for how long.

    Attributes:
      path: The SQLite file, relative to the configuration, or an address `postgresql://...`.
      retention_days: Days after which a decision takes no feedback and is deleted.
      store_prompts: Whether texts of prompts are kept; else only their fingerprints.
      when_failing: What happens to requests while nothing can be written: `answer` them and keep
        their rows in memory, or `refuse` them (503), where none may go unrecorded.
    """

    path: str = "racer-gateway.db"
    retention_days: Annotated[float, Meta(gt=0)] = 90.0
    store_prompts: bool = False
    when_failing: Literal["answer", "refuse"] = "answer"


class Audit(_Section, frozen=True):
    """The share of traffic that goes to all models in the background, to be labelled.

    Use this when you want to know whether the promise still holds.

    Attributes:
      share: Share of the requests.
      labeller: Who says which answers are right: a `queue` for people and programs, a `judge`
        model, or a `hook`, an address that is asked.
      judge: The model that labels.
      hook: The address.
      hash_key: A reference to the key of the draw; one is made and kept in the state where None.
      max_waiting: Audits under way at most; those above are counted as skipped.
    """

    share: Share = 0.0
    labeller: Literal["queue", "judge", "hook"] = "queue"
    judge: Name | None = None
    hook: str | None = None
    hash_key: Secret | None = None
    max_waiting: Positive = 64


class Monitors(_Section, frozen=True):
    """Tests that run by themselves.

    Use this when you choose how rare a false alarm shall be, and who hears of one.

    Attributes:
      level: Chance that any monitor of a route ever raises a false alarm, over all its artefacts,
        groups and levels alpha.
      share: Share of the requests that the exchangeability monitors see.
      reference: Decisions that choose the bins of a group before its test starts, where the
        artefact keeps no queries of its calibration.
      webhook: An address that gets one message for an alarm.
    """

    level: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    share: Share = 0.1
    reference: Annotated[int, Meta(ge=2)] = 200
    webhook: str | None = None


class Settings(_Section, frozen=True):
    """The whole configuration.

    Use this when you make a gateway in a program; `load_settings` reads a file.

    Attributes:
      models: The upstreams, by the names of the artefacts' pools.
      routes: The names that clients ask for.
      server: Where it listens, and the bounds on a request.
      keys: Keys of clients; without any, everybody on this machine may do everything.
      state: What is kept.
      audit: The audited share of traffic.
      monitors: Tests that run by themselves.
      experiments: Further names that clients ask for: routes that are compared.
      trusted_keys: Public keys, as `racer-jax sign` prints them; where there are any, an artefact
        is used only if one of them signed it.
    """

    models: Annotated[dict[Name, Model], Meta(min_length=1)]
    routes: Annotated[dict[Name, Route], Meta(min_length=1)]
    server: Server = field(default_factory=Server)
    keys: dict[Name, Key] = field(default_factory=dict)
    state: State = field(default_factory=State)
    audit: Audit = field(default_factory=Audit)
    monitors: Monitors = field(default_factory=Monitors)
    experiments: dict[Name, Experiment] = field(default_factory=dict)
    trusted_keys: tuple[str, ...] = ()

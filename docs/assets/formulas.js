// A machine without a font for formulas (many phones, plain Linux) leaves indices on the line in
// Chromium. Such a page gets a class by which docs/assets/site.css lowers them.
document.addEventListener("DOMContentLoaded", () => {
  if (document.querySelector("math") === null) return;
  const probe = document.createElement("span");
  probe.style = "position: absolute; visibility: hidden; font-size: 16px";
  probe.innerHTML = "<math><msub><mi>x</mi><mi>x</mi></msub></math>";
  document.body.append(probe);
  const letters = [...probe.querySelectorAll("mi")].map((part) => part.getBoundingClientRect());
  probe.remove();
  const lowered = letters[1].bottom - letters[0].bottom;
  if (lowered < 1.5) document.documentElement.classList.add("no-math-font");
});

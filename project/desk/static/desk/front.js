// On a narrow screen one browser is shown at a time; both go on, and the other one's button tells
// when something arrived there.
const buttons = document.querySelectorAll(".tabs button");

function mark(button, hasNews) {
  button.dataset.news = hasNews;
  button.setAttribute("aria-label", button.textContent + (hasNews ? ", with new events" : ""));
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    document.body.dataset.shown = button.dataset.browser;
    for (const one of buttons) one.setAttribute("aria-pressed", one === button);
    mark(button, false);
  });
}

addEventListener("message", ({origin, source}) => {
  if (origin !== location.origin) return;
  for (const button of buttons) {
    const frame = document.querySelector(`iframe[data-browser="${button.dataset.browser}"]`);
    const isShown = document.body.dataset.shown === button.dataset.browser;
    if (frame.contentWindow === source && !isShown) mark(button, true);
  }
});

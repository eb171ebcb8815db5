// A narrow screen shows one browser at a time. Both keep running, and the button of the hidden one
// shows when an event arrived there.
const buttons = document.querySelectorAll(".tabs button");

function mark(button, hasNews) {
  button.dataset.news = hasNews;
  button.setAttribute("aria-label", button.textContent + (hasNews ? ", with new events" : ""));
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    document.body.dataset.shown = button.dataset.browser;
    for (const each of buttons) each.setAttribute("aria-pressed", each === button);
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

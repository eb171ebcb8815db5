const form = document.querySelector("#rename");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new FormData(form); // includes the CSRF token
  await fetch(form.action, {method: "POST", body, headers: realtime.headers});
});

const {topic, since} = document.querySelector("[data-topic]").dataset;
const order = realtime.subscribe(topic, {since});
order.on("renamed", ({title}) => { form.elements.title.value = title; });
order.onReset(() => location.reload());

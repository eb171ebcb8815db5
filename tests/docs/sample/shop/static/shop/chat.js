const chat = realtime.subscribe(document.querySelector("[data-chat]").dataset.chat, {last: 50});
const form = document.querySelector("#say");
const typing = document.querySelector("#typing");

chat.on("said", ({by, text}) => {
  const line = document.createElement("li");
  line.textContent = `${by}: ${text}`;
  document.querySelector("#said").append(line);
  typing.textContent = "";
});
chat.on("typing", () => { typing.textContent = "Someone is typing …"; });

form.addEventListener("input", () => chat.publish("typing").catch(() => {})); // losing one does no harm
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await chat.call("say", {text: form.elements.text.value});
    form.reset();
  } catch (error) {
    typing.textContent = error.message;
  }
});

document.addEventListener("realtime-members", ({detail}) => {
  const names = detail.members.map(({info}) => info?.name ?? "someone");
  document.querySelector("#readers").textContent = `${names.length} reading: ${names.join(", ")}`;
});

document.addEventListener("realtime-members", ({detail}) => {
  const names = detail.members.map(({info}) => info.name);
  document.querySelector("#readers").textContent = `${names.length} reading: ${names.join(", ")}`;
});

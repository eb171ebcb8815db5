document.addEventListener("realtime:progress", ({detail}) => {
  document.querySelector("#progress").value = detail.data.percent;
});
document.addEventListener("realtime:ready", ({detail}) => {
  document.querySelector("#progress").value = 100;
  Object.assign(document.querySelector("#report"), {href: detail.data.url, hidden: false});
});

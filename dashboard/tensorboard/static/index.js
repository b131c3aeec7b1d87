export async function render() {
  const frame = document.createElement("iframe");
  frame.src = new URL("./index.html", import.meta.url).href;
  frame.title = "hiddenscope";
  frame.style.cssText = "position:fixed;inset:0;width:100%;height:100%;border:0";
  document.body.style.margin = "0";
  document.body.append(frame);
}

"use strict";
// The page anew, every few seconds; the server has escaped all that is in it.
async function renew() {
  const status = document.getElementById("status");
  try {
    if (!document.hidden) {
      const answer = await fetch("/");
      if (!answer.ok) throw new Error(await answer.text());
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
      status.textContent = `As of ${new Date().toLocaleTimeString()}.`;
    }
  } catch (error) { status.textContent = `No news: ${error.message}`; }
  setTimeout(renew, 3000);
}
setTimeout(renew, 3000);

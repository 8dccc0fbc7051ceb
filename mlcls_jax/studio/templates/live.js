"use strict";
// The page anew, every few seconds; the server has escaped all that is in it.
const places = () => [...document.querySelectorAll("main [tabindex]")];

function show(main) {
  const before = document.querySelector("main");
  if (main.innerHTML === before.innerHTML) return;
  // Who reads or scrolls in a region stays there.
  const kept = places().map((e) => [e.scrollLeft, e.scrollTop, e === document.activeElement]);
  before.replaceWith(document.adoptNode(main));
  places().forEach((e, i) => {
    const [left, top, hadFocus] = kept[i] ?? [0, 0, false];
    if (hadFocus) e.focus({ preventScroll: true });
    e.scrollTo(left, top);
  });
}

async function renew() {
  const status = document.getElementById("status");
  try {
    if (!document.hidden) {
      const answer = await fetch("/");
      if (!answer.ok) throw new Error(await answer.text());
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      show(page.querySelector("main"));
      status.textContent = `As of ${new Date().toLocaleTimeString()}.`;
    }
  } catch (error) { status.textContent = `No news: ${error.message}`; }
  setTimeout(renew, 3000);
}
setTimeout(renew, 3000);

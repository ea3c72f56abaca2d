// Refreshes live pages, and marks forms that are being sent. Everything works without it.
"use strict";

(() => {
	const main = document.getElementById("main");
	const seconds = Number(main.dataset.live);
	const line = document.querySelector(".liveness");

	// Buttons of forms that take a while say so, and are sent once.
	document.addEventListener("submit", (event) => {
		const button = event.target.querySelector("button[data-busy]");
		if (!button) return;
		if (event.target.dataset.sent) {
			event.preventDefault();
			return;
		}
		event.target.dataset.sent = "yes";
		button.textContent = button.dataset.busy;
	});
	addEventListener("pageshow", (event) => {
		if (event.persisted) location.reload(); // a page of the browser's history, with a form that was sent
	});

	if (!seconds || !line) return;
	const toggle = line.querySelector("[data-toggle-live]");
	const note = line.querySelector("[data-live-note]");
	const address = new URL(location.href);
	address.searchParams.delete("done"); // what was done is said once
	let on = true;
	let failed = false;
	line.hidden = false;

	toggle.addEventListener("click", () => {
		on = !on;
		toggle.setAttribute("aria-pressed", String(on));
		toggle.textContent = on ? "Live" : "Paused";
	});

	// Nothing is replaced under a viewer's hands: a field with the focus, a selection, an open part.
	const busy = () => main.contains(document.activeElement) && document.activeElement !== main ||
		!document.getSelection().isCollapsed || main.querySelector("details[open]") !== null || main.querySelector(".done") !== null;

	const refresh = async () => {
		if (!on || document.hidden || busy()) return;
		try {
			const answer = await fetch(address, { headers: { Accept: "text/html" } });
			if (!answer.ok) throw new Error(answer.statusText);
			const page = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
			if (!on || busy() || !page) return;
			const places = [...main.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
			main.replaceChildren(...page.childNodes);
			main.querySelectorAll(".scroll").forEach((part, i) => { part.scrollLeft = places[i] || 0; });
			if (failed) note.textContent = "";
			failed = false;
		} catch {
			failed = true;
			note.textContent = "The console doesn't answer: what is shown is old.";
		}
	};
	const loop = async () => {
		await refresh();
		setTimeout(loop, seconds * 1000);
	};
	setTimeout(loop, seconds * 1000);
})();

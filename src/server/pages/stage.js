"use strict";
const find = (id) => document.getElementById(id);
const session = new URLSearchParams(location.search).get("session");
const stage = decodeURIComponent(location.pathname.split("/").at(-3));
const tell = (problem) => { find("problem").textContent = problem; };
const stages = {
  "m.login.dummy": ["Your client asks you to continue here.", null, null],
  "m.login.password": ["Confirm that it is you.", "Your password", "password"],
  "m.login.registration_token": ["A new account needs a registration token.", "Token", "text"],
};

const [why, label, type] = stages[stage] || [];
if (session && why) {
  find("why").textContent = why;
  find("field").hidden = label === null;
  find("label").textContent = label || "";
  find("proof").type = type || "hidden";
  find("proof").required = label !== null;
  find("form").hidden = false;
} else {
  tell("The link is not complete. Go back to your client and begin again.");
}

// Sends the signal that the specification tells the client to wait for.
const done = () => {
  if (window.onAuthDone) {
    window.onAuthDone();
  } else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
  }
};

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  tell("");
  find("send").disabled = true;
  try {
    const response = await fetch(location.pathname, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ session, proof: find("proof").value }),
    });
    if (response.ok) {
      find("form").hidden = true;
      find("done").hidden = false;
      done();
    } else {
      tell((await response.json()).error || "The server refused.");
    }
  } catch {
    tell("The server did not answer.");
  } finally {
    find("send").disabled = false;
  }
});

"use strict";
const find = (id) => document.getElementById(id);
const secret = location.hash.slice(1);
const tell = (problem) => { find("problem").textContent = problem; };

// Keeps the secret out of the history and of copies of the address.
history.replaceState(null, "", location.pathname);
if (secret) {
  find("form").hidden = false;
  find("username").focus();
} else {
  tell("The link is not complete. Open it exactly as the server printed it; a restart of the server prints a new one.");
}

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [username, password] = [find("username").value.trim(), find("password").value];
  if (password !== find("again").value) {
    tell("The two passwords differ.");
    return;
  }
  tell("");
  find("create").disabled = true;
  try {
    const response = await fetch("/setup", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ secret, username, password }),
    });
    const answer = await response.json();
    if (response.ok) {
      find("user").textContent = answer.user_id;
      find("form").hidden = true;
      find("done").hidden = false;
    } else {
      tell(answer.error || "The server refused.");
    }
  } catch {
    tell("The server did not answer. Is it still running?");
  } finally {
    find("create").disabled = false;
  }
});

/* The shift check follows the parts that are shown, ES5. Without it the page reloads by itself. */
(function () {
  "use strict";
  var EVERY_MS = 500, TIMEOUT_MS = 5000;
  var place = document.getElementById("shift"), parts = document.getElementById("parts"), end = document.getElementById("end");
  var shown = "";

  function show(html) {
    if (html === shown) { return; }
    shown = html;
    parts.innerHTML = html;
    if (end) { end.disabled = !parts.querySelector("[data-done=yes]"); }
  }

  /* What was to be shown a while ago must not look as if it were now. */
  function lost() {
    var box = document.createElement("div");
    box.className = "lost";
    box.setAttribute("role", "alert");
    box.appendChild(document.createTextNode(place.getAttribute("data-lost")));
    shown = "";
    parts.innerHTML = "";
    parts.appendChild(box);
    if (end) { end.disabled = true; }
  }

  function load() {
    var request = new XMLHttpRequest();
    function next() { window.setTimeout(load, EVERY_MS); }
    request.open("GET", place.getAttribute("data-parts"));
    request.timeout = TIMEOUT_MS;
    request.onload = function () {
      if (request.status === 401 || request.status === 404) { window.location.reload(); return; }
      if (request.status === 200) { show(request.responseText); } else { lost(); }
      next();
    };
    request.onerror = request.ontimeout = function () { lost(); next(); };
    request.send();
  }
  window.setTimeout(load, EVERY_MS);
}());

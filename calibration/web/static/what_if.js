/* Moving T1 and T2 shows at once what they would have done, ES5. Without it the form does. */
(function () {
  "use strict";
  var form = document.getElementById("sliders"), place = document.getElementById("outcome");
  var AGAIN_MS = 1000, t1, t2, busy = false, again = false, later;

  /* What other thresholds would have done must not stand beside these. */
  function lost() {
    var box = document.createElement("p");
    box.className = "card bad large";
    box.setAttribute("role", "alert");
    box.appendChild(document.createTextNode(place.getAttribute("data-lost")));
    place.innerHTML = "";
    place.appendChild(box);
    window.clearTimeout(later);
    later = window.setTimeout(show, AGAIN_MS);
  }

  function show() {
    var request = new XMLHttpRequest();
    if (busy) { again = true; return; }
    busy = true;
    function done() {
      busy = false;
      if (request.status === 401) { window.location.reload(); }
      if (request.status === 200) { place.innerHTML = request.responseText; } else { lost(); }
      if (again) { again = false; show(); }
    }
    request.open("GET", place.getAttribute("data-panel-of") + "?t1=" + t1.value + "&t2=" + t2.value);
    request.timeout = 5000;
    request.onload = request.onerror = request.ontimeout = done;
    request.send();
  }

  function moved(one, other, pushes) {
    one.addEventListener("input", function () {
      if (pushes(Number(one.value), Number(other.value))) { other.value = one.value; }
      show();
    });
  }

  if (!form) { return; }
  t1 = document.getElementById("t1");
  t2 = document.getElementById("t2");
  moved(t1, t2, function (a, b) { return a > b; });
  moved(t2, t1, function (a, b) { return a < b; });
}());

/* Moving T1 and T2 shows at once what they would have done, ES5. Without it the form does. */
(function () {
  "use strict";
  var form = document.getElementById("sliders"), place = document.getElementById("outcome");
  var AGAIN_MS = 1000, t1, t2, busy = false, again = false, later;

  function show() {
    var where = "?t1=" + t1.value + "&t2=" + t2.value;
    if (busy) { again = true; return; }
    busy = true;
    function ready() { busy = false; if (again) { again = false; show(); } }
    kenpin.ask(place.getAttribute("data-panel-of") + where, function (html) {
      place.innerHTML = html;
      document.querySelector(".languages [name=back]").value = form.getAttribute("action") + where;
      ready();
    }, function () {
      /* What other thresholds would have done must not stand beside these. */
      kenpin.lost(place, place.getAttribute("data-lost"), "card bad large");
      window.clearTimeout(later);
      later = window.setTimeout(show, AGAIN_MS);
      ready();
    });
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

// The view is in the fragment, and browsers carry a fragment through a redirect if the form's address has one.
const form = document.getElementById("login");
form.action = "/login" + location.hash;

// The form to ask for a job: what its controls say as the input of a kind, files uploaded first.

import { Problem } from "../client.js";

/** The input that a form says. A control that is empty is left out. @returns {Promise<object>} */
export async function inputOf(form, upload) {
  const input = {};
  for (const field of form.querySelectorAll("[data-control]")) {
    const control = field.querySelector("[name]");
    const value = control.value;
    switch (field.dataset.control) {
      case "switch": input[control.name] = control.checked; break;
      case "number": if (value !== "") input[control.name] = Number(value); break;
      case "file": if (control.files[0]) input[control.name] = await upload(control.files[0]); break;
      default: if (value.trim() !== "") input[control.name] = value;
    }
  }
  return input;
}

/** Show what was refused, at the control that it is about where there is one. */
export function showRefusal(form, failure, text) {
  const place = form.querySelector("[data-wrong]");
  place.textContent = text;
  place.hidden = false;
  const field = failure instanceof Problem ? failure.body.field?.replace(/^input\./, "") : null;
  const control = field && form.querySelector(`[name="${CSS.escape(field)}"]`);
  if (control) {
    control.closest("details")?.setAttribute("open", "");
    control.setAttribute("aria-invalid", "true");
    control.focus();
  }
}

export function clearRefusal(form) {
  form.querySelector("[data-wrong]").hidden = true;
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

// What the forms around a performance say.

/** The named controls of a form that are filled in. @param {HTMLFormElement} form */
export function givenBy(form) {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
}

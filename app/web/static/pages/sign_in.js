// A link on another site leads here without the cookie, which is Strict. From here, asking again brings it.

const again = await fetch(location.href, { method: "HEAD", headers: { Accept: "text/html" }, credentials: "same-origin" });
if (again.ok) location.replace(location.href);

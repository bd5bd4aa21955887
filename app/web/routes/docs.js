// Starts Swagger UI over the schema of the service that serves this page.
"use strict";

window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Ours are relative to this service: nothing is sent to a validator on the net.
  validatorUrl: null,
  tryItOutEnabled: true,
});

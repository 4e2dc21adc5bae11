package trunkline

// Version is this client's; the gateway sees it in the user agent.
const Version = "0.1.0"

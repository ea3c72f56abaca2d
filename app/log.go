package app

// Keys of log lines.
const (
	keyAddress = "address"
	keyError   = "error"
	keyReason  = "reason"
	keyService = "service"
)

package timeout

// Keys of log records.
const (
	keyError      = "error"
	keyRetryAfter = "retry_after"
	keyTimeouts   = "timeouts"
	keyKey        = "timeout_key"
	keyName       = "timeout_name"
	keyTopic      = "topic"
	keyType       = "type"
	keyEvent      = "event_id"
	keySends      = "sends"
	keyOverdue    = "overdue"
)

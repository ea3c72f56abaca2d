package handlers

// Keys of log lines.
const (
	keyConsumer   = "consumer"
	keyEvent      = "event_id"
	keyTopic      = "topic"
	keyType       = "type"
	keySubject    = "subject"
	keyAttempt    = "attempt"
	keyRetryAfter = "retry_after"
	keyError      = "error"
	keyStack      = "stack"
	keyRunning    = "running_for"
	keyPaused     = "paused"
	keyActor      = "actor"
	keyReason     = "reason"
)

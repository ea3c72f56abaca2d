package rocketmq

// Keys of log attributes.
const (
	keyAddress    = "address"
	keyAttempt    = "attempt"
	keyBroker     = "broker"
	keyError      = "error"
	keyGroup      = "group"
	keyMessageID  = "message_id"
	keyName       = "name"
	keyReason     = "reason"
	keyRetryAfter = "retry_after"
	keyStack      = "stack"
	keyTook       = "took"
	keyTopic      = "topic"
	keyWhat       = "what"
)

package saga

// Keys of log records.
const (
	keySaga       = "saga"
	keyKey        = "saga_key"
	keyState      = "state"
	keyVersion    = "version"
	keyType       = "type"
	keyEvent      = "event_id"
	keyEvents     = "events"
	keySagas      = "sagas"
	keyAttempts   = "attempts"
	keyStatus     = "status"
	keyWaited     = "waited"
	keyRetryAfter = "retry_after"
	keyError      = "error"
	keyStack      = "stack"
)

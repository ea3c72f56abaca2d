package outbox

// Keys of log lines.
const (
	keyAfterSequence = "after_sequence"
	keyAge           = "age"
	keyAhead         = "ahead"
	keyDatabase      = "database"
	keyError         = "error"
	keyEvent         = "event_id"
	keyEvents        = "events"
	keyFailures      = "failures"
	keyFor           = "for"
	keyFunctions     = "functions"
	keyReason        = "reason"
	keyRecordedTopic = "recorded_topic"
	keyRecordedType  = "recorded_type"
	keyRetryAfter    = "retry_after"
	keySent          = "sent"
	keySource        = "source"
	keyStreamTopic   = "stream_topic"
	keySubject       = "subject"
	keyTimes         = "times"
	keyTopic         = "topic"
	keyType          = "type"
	keyUntilSequence = "until_sequence"
	keyWhat          = "what"
)

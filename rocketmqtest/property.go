package rocketmqtest

// Properties of messages that the broker reads or writes. Package broker lists all reserved names.
const (
	propertyKeys          = "KEYS"
	propertyTag           = "TAGS"
	propertyUniqueKey     = "UNIQ_KEY"
	propertyShardingKey   = "SHARDING_KEY"
	propertyMessageGroup  = "__SHARDINGKEY" // by which a proxy recognizes a message as FIFO; SHARDING_KEY is only rocketmq-client-go's
	propertyDelayLevel    = "DELAY"
	propertyRealTopic     = "REAL_TOPIC"
	propertyRealQueue     = "REAL_QID"
	propertyTransaction   = "TRAN_MSG"
	propertyProducerGroup = "PGROUP"
	propertyTransactionID = "__transactionId__"
	propertyCheckTimes    = "TRANSACTION_CHECK_TIMES"
	propertyRetryTopic    = "RETRY_TOPIC"
	propertyOriginID      = "ORIGIN_MESSAGE_ID"

	propertyCheckImmunity  = "CHECK_IMMUNITY_TIME_IN_SECONDS"
	propertyPreparedOffset = "TRAN_PREPARED_QUEUE_OFFSET" // where an immune half message was first
	propertyWait           = "WAIT"

	propertyTimerDelaySeconds = "TIMER_DELAY_SEC"
	propertyTimerDelayMillis  = "TIMER_DELAY_MS"
	propertyTimerDeliver      = "TIMER_DELIVER_MS"
	propertyTimerDelete       = "TIMER_DEL_UNIQKEY"
	propertyTimerOut          = "TIMER_OUT_MS" // the slot of the wheel
	propertyTimerEnqueue      = "TIMER_ENQUEUE_MS"
	propertyTimerDequeue      = "TIMER_DEQUEUE_MS"
	propertyStartDeliver      = "__STARTDELIVERTIME"     // DMS
	propertyCancelScheduled   = "__CANCEL_SCHEDULED_MSG" // DMS

	propertyRegion  = "MSG_REGION"
	propertyTrace   = "TRACE_ON"
	propertyCluster = "CLUSTER"
)

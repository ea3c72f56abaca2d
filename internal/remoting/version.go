package remoting

// Version is the protocol version that is sent by default: that of RocketMQ 5.3.3.
const Version = Version533

// Ordinals of RocketMQ's versions, as brokers have them in the headers of their responses.
const (
	FirstOf500 = 412 // the first snapshot of 5.0.0; lower ones are of RocketMQ 4
	Version532 = 477
	Version533 = 479
	Version540 = 493
	FirstOf550 = 511 // the first snapshot of 5.5.0
	Version550 = 513
	Version551 = 515
)

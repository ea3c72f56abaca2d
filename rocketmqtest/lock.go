package rocketmqtest

import "time"

// lock is a consumer's hold on a queue.
type lock struct {
	client  string
	renewed time.Time // by the machine's clock
}

package main

import "errors"

// brokerKind is the value of --broker: the broker to start. It is empty unless the flag is set.
type brokerKind string

const (
	embeddedBroker brokerKind = "embedded" // in this process: package rocketmqtest
	realBroker     brokerKind = "rocketmq" // RocketMQ itself, a Java process
)

func (f *brokerKind) String() string { return string(*f) }

func (f *brokerKind) Type() string { return "embedded|rocketmq" }

func (f *brokerKind) Set(value string) error {
	switch *f = brokerKind(value); *f {
	case embeddedBroker, realBroker:
		return nil
	}
	return errors.New("want embedded or rocketmq")
}

package main

import "errors"

// brokerFlag is the value of --broker: the broker to start. It is empty unless the flag is set.
type brokerFlag string

const (
	embeddedBroker brokerFlag = "embedded" // in this process: package rocketmqtest
	realBroker     brokerFlag = "rocketmq" // RocketMQ itself, a Java process
)

func (f *brokerFlag) String() string { return string(*f) }

func (f *brokerFlag) Type() string { return "embedded|rocketmq" }

func (f *brokerFlag) Set(value string) error {
	switch *f = brokerFlag(value); *f {
	case embeddedBroker, realBroker:
		return nil
	}
	return errors.New("want embedded or rocketmq")
}

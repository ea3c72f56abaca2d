package devstack

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// EmbeddedConfig describes a broker in this process, package rocketmqtest. The zero value is a good one.
type EmbeddedConfig struct {
	// NameServerPort and BrokerPort on 127.0.0.1. Default: free ones.
	NameServerPort, BrokerPort int
	// Credentials are a secret for each access key. Default: anybody may do anything.
	Credentials map[string]string
	// Logger. Default: discard.
	Logger *slog.Logger
}

// Embedded is a name server and a broker in this process. It can be hurt as a [RocketMQ] can.
type Embedded struct {
	server *rocketmqtest.Server
}

// StartEmbedded starts a broker that keeps nothing, with the settings that a [RocketMQ] gets here.
func StartEmbedded(config EmbeddedConfig) (*Embedded, error) {
	names, err := choosePort(config.NameServerPort, namesBand)
	if err != nil {
		return nil, fmt.Errorf("start the embedded name server: %w", err)
	}
	broker, err := choosePort(config.BrokerPort, brokerBand)
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	// The same as in brokerProperties, which has the reasons.
	server, err := rocketmqtest.New(rocketmqtest.Config{
		Addr:               address(names),
		BrokerAddr:         address(broker),
		Credentials:        config.Credentials,
		MaxMessageSize:     2 << 20,
		TransactionTimeout: 2 * time.Second,
		CheckInterval:      time.Second,
		CheckMax:           60,
		OpBatchInterval:    100 * time.Millisecond,
		TimerPrecision:     100 * time.Millisecond,
		Logger:             config.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	return &Embedded{server}, nil
}

// NameServer is the address of the name server.
func (e *Embedded) NameServer() string { return e.server.Addr() }

// Broker is the address of the broker.
func (e *Embedded) Broker() string { return e.server.BrokerAddr() }

// Stop ends it, and what it held is gone.
func (e *Embedded) Stop(context.Context) error {
	e.server.Close()
	return nil
}

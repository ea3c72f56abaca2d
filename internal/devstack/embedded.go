package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// EmbeddedConfig describes a broker in this process. The zero value is a good one.
type EmbeddedConfig struct {
	// Dir has its log, and nothing else: messages are in memory. Default: no log.
	Dir string
	// NameServerPort and BrokerPort on 127.0.0.1. Default: free ones.
	NameServerPort, BrokerPort int
	// Credentials are a secret for each access key. Default: anybody may do anything.
	Credentials map[string]string
	// Logger. Default: discard.
	Logger *slog.Logger
}

// Embedded is a name server and a broker in this process, package rocketmqtest. Its methods, as those of a [RocketMQ],
// must not be called concurrently with each other.
type Embedded struct {
	server *rocketmqtest.Server
	log    *os.File // nil: none
	end    func() error
}

// StartEmbedded starts a broker with the settings that [StartRocketMQ] gives a real one.
func StartEmbedded(config EmbeddedConfig) (*Embedded, error) {
	e := &Embedded{}
	e.end = sync.OnceValue(e.close)
	log, err := e.openLog(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	// A port that was found free may be taken a moment later; even by this program, where it starts another one just while
	// it looks: until that one runs it holds all that this one has open.
	for try := 0; ; try++ {
		e.server, err = listen(config, log)
		if err == nil || try == 5 || config.NameServerPort != 0 || config.BrokerPort != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the embedded broker: %w", err), e.end())
	}
	cmp.Or(config.Logger, slog.New(slog.DiscardHandler)).
		Info("the embedded broker runs", "nameServer", e.NameServer(), "broker", e.Broker())
	return e, nil
}

func listen(config EmbeddedConfig, log *slog.Logger) (*rocketmqtest.Server, error) {
	names, err := choosePort(config.NameServerPort, namesBand)
	if err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	broker, err := choosePort(config.BrokerPort, brokerBand)
	if err != nil {
		return nil, err
	}
	return rocketmqtest.New(rocketmqtest.Config{
		Addr:        address(names),
		BrokerAddr:  address(broker),
		Credentials: config.Credentials,
		Logger:      log,

		// As in brokerProperties, which has the reasons.
		MaxMessageSize:     2 << 20,
		TransactionTimeout: 2 * time.Second,
		CheckInterval:      time.Second,
		CheckMax:           60,
		OpBatchInterval:    100 * time.Millisecond,
		TimerPrecision:     100 * time.Millisecond,
	})
}

func (e *Embedded) openLog(dir string) (*slog.Logger, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	e.log, err = os.OpenFile(filepath.Join(dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(e.log, nil)), nil
}

// NameServer is the address of the name server.
func (e *Embedded) NameServer() string { return e.server.Addr() }

// Broker is the address of the broker.
func (e *Embedded) Broker() string { return e.server.BrokerAddr() }

// Kill ends the broker, which loses what a SIGKILL loses. The name server goes on.
func (e *Embedded) Kill() { e.server.Stop(rocketmqtest.LoseMemory) }

// Restart starts the broker on the same port with what it held, after Kill as well as while it runs: then it is shut down
// first. The name server goes on.
func (e *Embedded) Restart(context.Context) error { return e.server.Restart(rocketmqtest.LoseMarkers) }

// Pause stops the broker where it is, as on a frozen machine.
func (e *Embedded) Pause() error {
	e.server.Pause()
	return nil
}

// Continue ends a Pause.
func (e *Embedded) Continue() error {
	e.server.Resume()
	return nil
}

// Stop ends it, and what it held is gone. Only the first call does anything.
func (e *Embedded) Stop(context.Context) error { return e.end() }

func (e *Embedded) close() error {
	if e.server != nil {
		e.server.Close()
	}
	if e.log == nil {
		return nil
	}
	return e.log.Close()
}

package devstack

import (
	"cmp"
	"context"
	"crypto/tls"
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

// EmbeddedConfig configures an embedded broker. The zero value is ready to use.
type EmbeddedConfig struct {
	// Dir is the directory of the broker's log. Messages are in memory only.
	// Defaults to no log.
	Dir string
	// NameServerPort and BrokerPort are ports of 127.0.0.1.
	// Defaults to free ports.
	NameServerPort, BrokerPort int
	// Credentials maps the access key of each user to its secret.
	// Defaults to no authentication.
	Credentials map[string]string
	// TLS makes the name server and the broker take TLS connections only.
	// Defaults to connections without TLS.
	TLS *tls.Config
	// Logger receives the addresses of the started broker.
	// Defaults to a logger that discards everything.
	Logger *slog.Logger
}

// Embedded is a name server and a broker of package rocketmqtest, with the methods of [RocketMQ]. They must not be called
// concurrently.
type Embedded struct {
	server *rocketmqtest.Server
	log    *os.File // nil without Config.Dir
	end    func() error
}

// StartEmbedded starts an embedded broker with the same settings that [StartRocketMQ] gives a real one.
func StartEmbedded(config EmbeddedConfig) (*Embedded, error) {
	e := &Embedded{}
	e.end = sync.OnceValue(e.close)
	log, err := e.openLog(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	// A port that was free a moment ago may be taken now: by another program, or by a child of this one, which holds a copy of
	// all open sockets until it execs.
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
		Info("embedded broker started", "name_server", e.NameServer(), "broker", e.Broker())
	return e, nil
}

// listen starts the server on free or configured ports.
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
		TLS:         config.TLS,
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

// openLog opens the log file in dir. Without a dir there is no log.
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

// NameServer returns the address of the name server.
func (e *Embedded) NameServer() string { return e.server.Addr() }

// Broker returns the address of the broker.
func (e *Embedded) Broker() string { return e.server.BrokerAddr() }

// Kill stops the broker with the loss of a SIGKILL. The name server continues.
func (e *Embedded) Kill() { e.server.Stop(rocketmqtest.LoseMemory) }

// Restart starts the broker on the same port with the same messages, after Kill or, with a shutdown first, while it runs. The
// name server continues.
func (e *Embedded) Restart(context.Context) error { return e.server.Restart(rocketmqtest.LoseMarkers) }

// Pause freezes the broker: connections stay open and requests get no response.
func (e *Embedded) Pause() error {
	e.server.Pause()
	return nil
}

// Continue ends a Pause.
func (e *Embedded) Continue() error {
	e.server.Resume()
	return nil
}

// Stop stops name server and broker and deletes the messages. Further calls do nothing.
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

package devstack

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"syscall"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// RocketMQConfig configures a name server with one broker. The zero value is ready to use.
type RocketMQConfig struct {
	// Version is the version of RocketMQ, such as "4.9.7", "5.3.3", "5.4.0" or "5.5.0".
	// Defaults to RocketMQVersion.
	Version string
	// Dir is the directory of messages and logs.
	// Defaults to a temporary directory, which Stop removes.
	Dir string
	// NameServerPort is a port of 127.0.0.1.
	// Defaults to a free port.
	NameServerPort int
	// BrokerPort is a port of 127.0.0.1. The broker also uses the ports BrokerPort-2 and BrokerPort+1.
	// Defaults to free ports.
	BrokerPort int
	// Properties are settings of the broker that replace those of this package: {"autoCreateTopicEnable": "true"}.
	Properties map[string]string
	// Auth makes the broker require credentials: by ACL 2.0, or by ACL 1.0 in RocketMQ 4.
	// Defaults to no authentication.
	Auth *AuthConfig
	// TLS makes the name server and the broker require TLS.
	// Defaults to RocketMQ's own default: both accept TLS, with certificates that they make themselves, and plain connections.
	TLS *TLSConfig
	// JavaOptions are options of the broker's JVM. They replace those of this package: {"-Xmx2g"}. By default the JVM compiles once, for a
	// fast start; Start lets it run at full speed, except with NoFsync.
	JavaOptions []string
	// CacheDir is the directory of the downloaded jars.
	// Defaults to a directory in the user's cache.
	CacheDir string
	// Logger receives what is started and downloaded.
	// Defaults to a logger that discards everything.
	Logger *slog.Logger
}

// RocketMQ is a running name server with a broker. Its methods must not be called concurrently.
type RocketMQ struct {
	config RocketMQConfig
	client *tls.Config // for connections to both servers; nil without TLS
	dir    *directory
	installation
	names  *process
	broker *process
}

// StartRocketMQ starts a RocketMQ and returns when the name server knows the broker, after some five seconds. ctx bounds the
// start only. A topic that is created in the first ten seconds of the broker may get its route only half a minute later: wait
// for the route, not for the response.
func StartRocketMQ(ctx context.Context, config RocketMQConfig) (*RocketMQ, error) {
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	config.Version = cmp.Or(config.Version, RocketMQVersion)
	r := &RocketMQ{config: config}
	var err error
	if r.client, err = config.TLS.client(); err != nil {
		return nil, fmt.Errorf("start RocketMQ: %w", err)
	}
	if r.config.NameServerPort, err = choosePort(config.NameServerPort, namesBand); err != nil {
		return nil, fmt.Errorf("start RocketMQ's name server: %w", err)
	}
	if r.config.BrokerPort, err = choosePort(config.BrokerPort, brokerBand, -2, +1); err != nil {
		return nil, fmt.Errorf("start RocketMQ's broker: %w", err)
	}
	if r.installation, err = install(ctx, config.Version, config.CacheDir, config.Logger, brokerArtifacts...); err != nil {
		return nil, err
	}
	if r.dir, err = openDirectory(config.Dir, "", false); err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		r.kill()
		return nil, errors.Join(err, r.dir.close())
	}
	r.config.Logger.Info("RocketMQ started", "version", r.version, "name_server", r.NameServer(), "broker", r.Broker(), "java", r.java, "dir", r.dir.path)
	return r, nil
}

// NameServer returns the address of the name server.
func (r *RocketMQ) NameServer() string { return address(r.config.NameServerPort) }

// Broker returns the address of the broker.
func (r *RocketMQ) Broker() string { return address(r.config.BrokerPort) }

// Version returns the version that runs.
func (r *RocketMQ) Version() string { return r.version }

// Dir returns the directory of messages, logs and configuration.
func (r *RocketMQ) Dir() string { return r.dir.path }

// start starts both servers, and creates the users of a new broker.
func (r *RocketMQ) start(ctx context.Context) error {
	if err := checkDisk(r.dir.path); err != nil {
		return err
	}
	if err := r.configure(); err != nil {
		return fmt.Errorf("configure RocketMQ: %w", err)
	}
	var err error
	r.names, err = r.server("RocketMQ's name server", "namesrv", "-Xms64m", "-Xmx256m").start()
	if err != nil {
		return err
	}
	first := !exists(r.store())
	if err := r.startBroker(ctx); err != nil {
		return err
	}
	if r.config.Auth != nil && first && !r.is4() {
		if err := r.config.Auth.createUsers(ctx, r.Broker(), r.client); err != nil {
			return fmt.Errorf("start RocketMQ: %w", err)
		}
	}
	return nil
}

// configure writes the two configuration files.
func (r *RocketMQ) configure() error {
	names := map[string]string{
		"listenPort":   strconv.Itoa(r.config.NameServerPort),
		"bindAddress":  "127.0.0.1",
		"kvConfigPath": r.dir.sub("namesrv/kvConfig.json"),
	}
	if err := writeProperties(r.dir.sub("namesrv.conf"), names); err != nil {
		return err
	}
	broker := brokerProperties(r.config.BrokerPort, r.NameServer(), r.store())
	switch {
	case r.config.Auth == nil:
	case r.is4():
		broker["aclEnable"] = "true"
		if err := r.config.Auth.writeACL1(r.dir.sub("broker/conf")); err != nil {
			return err
		}
	default:
		maps.Copy(broker, r.config.Auth.properties())
	}
	maps.Copy(broker, r.config.Properties)
	if r.config.TLS != nil {
		if err := r.configureTLS(); err != nil {
			return err
		}
	}
	return writeProperties(r.dir.sub("broker.conf"), broker)
}

// startBroker starts the broker and waits until it is ready.
func (r *RocketMQ) startBroker(ctx context.Context) (err error) {
	options := append([]string{"-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m"}, r.config.JavaOptions...)
	r.broker, err = r.server("RocketMQ's broker", "broker", options...).start()
	if err != nil {
		return err
	}
	return r.broker.await(ctx, r.ready)
}

// server returns how to start one of the two servers, whose directory is named after its role.
func (r *RocketMQ) server(name, role string, options ...string) javaServer {
	if r.config.TLS != nil {
		options = append([]string{"-Dtls.server.mode=enforcing", "-Dtls.enable=true", "-Dtls.config.file=" + r.tlsFile()}, options...)
	}
	return javaServer{installation: r.installation, dir: r.dir, name: name, role: role, home: role, options: options}
}

// ready returns nil if the broker has logged that it is up and the name server knows it.
func (r *RocketMQ) ready(ctx context.Context) error {
	if r.names.ended() {
		return r.names.failure("did not start")
	}
	if !bytes.Contains(r.broker.output(), []byte("boot success")) {
		return errors.New("it has not booted")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	brokers, err := brokersOf(ctx, r.NameServer(), r.client)
	if err != nil {
		return err
	}
	for _, b := range brokers {
		if b.Master() == r.Broker() {
			return nil
		}
	}
	return errors.New("the name server does not know the broker")
}

// brokersOf returns the brokers that a name server knows, by name.
func brokersOf(ctx context.Context, nameServer string, config *tls.Config) (map[string]remoting.BrokerData, error) {
	conn, err := remoting.DialTLS(ctx, nameServer, config, remoting.Credentials{}, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	response, err := conn.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err != nil {
		return nil, conn.Explain(ctx, err)
	}
	var cluster remoting.Cluster
	if err := remoting.DecodeJSON(response.Body, &cluster); err != nil {
		return nil, err
	}
	return cluster.Brokers, nil
}

// Restart starts the broker on the same port and store, after Kill or, with a shutdown first, while it runs. The name server
// continues.
func (r *RocketMQ) Restart(ctx context.Context) error {
	if err := r.broker.stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	return r.startBroker(ctx)
}

// Kill kills the broker with SIGKILL. The name server continues.
func (r *RocketMQ) Kill() { r.broker.kill() }

// Pause freezes the broker with SIGSTOP: connections stay open and requests get no response. New connections are still accepted,
// by the kernel.
func (r *RocketMQ) Pause() error { return r.broker.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (r *RocketMQ) Continue() error { return r.broker.signal(syscall.SIGCONT) }

// Stop shuts the broker down, which takes some seven seconds, kills the name server, which has nothing to save, and removes a
// temporary directory. A broker that still runs when ctx ends is killed; one in a temporary directory is killed at once.
// Further calls do nothing.
func (r *RocketMQ) Stop(ctx context.Context) error {
	if r.dir.temporary {
		r.kill()
		return r.dir.close()
	}
	err := r.broker.stop(ctx, syscall.SIGTERM)
	r.names.kill()
	return errors.Join(err, r.dir.close())
}

// kill kills both servers.
func (r *RocketMQ) kill() {
	for _, p := range []*process{r.broker, r.names} {
		if p != nil {
			p.kill()
		}
	}
}

// store is the directory of the messages.
func (r *RocketMQ) store() string { return r.dir.sub("store") }

package devstack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// RocketMQConfig describes a name server with one broker. The zero value is a good one.
type RocketMQConfig struct {
	// Dir keeps the messages and the logs. Default: a temporary directory, removed by Stop.
	Dir string
	// NameServerPort on 127.0.0.1. Default: a free one.
	NameServerPort int
	// BrokerPort on 127.0.0.1; the broker also takes the port two below and the one above. Default: free ones.
	BrokerPort int
	// Properties of the broker, over those that we set: {"autoCreateTopicEnable": "true"}.
	Properties map[string]string
	// Auth makes the broker ask for credentials. Default: it doesn't.
	Auth *AuthConfig
	// JavaOptions of the broker's JVM, after ours, so that they win: {"-Xmx2g"}.
	JavaOptions []string
	// CacheDir keeps the jars. Default: a directory in the user's cache.
	CacheDir string
	// Logger. Default: discard.
	Logger *slog.Logger
}

// RocketMQ is a running name server and a broker. Its methods must not be called concurrently with each other.
type RocketMQ struct {
	config     RocketMQConfig
	dir        *directory
	java, jars string
	names      *process
	broker     *process
}

// StartRocketMQ returns when the name server knows the broker. ctx bounds only the start, which takes some five
// seconds. A topic that is created in the broker's first ten seconds may get its route only half a minute later: wait
// for the route, not for the answer.
func StartRocketMQ(ctx context.Context, config RocketMQConfig) (*RocketMQ, error) {
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	r := &RocketMQ{config: config}
	var err error
	if r.config.NameServerPort, err = choosePort(config.NameServerPort, namesBand); err != nil {
		return nil, fmt.Errorf("start RocketMQ's name server: %w", err)
	}
	if r.config.BrokerPort, err = choosePort(config.BrokerPort, brokerBand, -2, +1); err != nil {
		return nil, fmt.Errorf("start RocketMQ's broker: %w", err)
	}
	if r.java, err = findJava(ctx); err != nil {
		return nil, err
	}
	if r.jars, err = rocketmqJars(ctx, config.CacheDir, r.java, r.config.Logger); err != nil {
		return nil, err
	}
	if r.dir, err = openDirectory(config.Dir, false); err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		r.kill()
		return nil, errors.Join(err, r.dir.close())
	}
	r.config.Logger.Info("RocketMQ runs", "nameServer", r.NameServer(), "broker", r.Broker(), "java", r.java, "dir", r.dir.path)
	return r, nil
}

// NameServer is the address of the name server.
func (r *RocketMQ) NameServer() string { return address(r.config.NameServerPort) }

// Broker is the address of the broker.
func (r *RocketMQ) Broker() string { return address(r.config.BrokerPort) }

// Dir holds messages, logs and configuration.
func (r *RocketMQ) Dir() string { return r.dir.path }

func (r *RocketMQ) start(ctx context.Context) error {
	if err := checkDisk(r.dir.path); err != nil {
		return err
	}
	if err := r.configure(); err != nil {
		return fmt.Errorf("configure RocketMQ: %w", err)
	}
	var err error
	r.names, err = r.startJava("RocketMQ's name server", "namesrv", []string{"-Xms64m", "-Xmx256m"})
	if err != nil {
		return err
	}
	first := !exists(r.store())
	if err := r.startBroker(ctx); err != nil {
		return err
	}
	if r.config.Auth != nil && first {
		if err := r.config.Auth.createUsers(ctx, r.Broker()); err != nil {
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
	if r.config.Auth != nil {
		maps.Copy(broker, r.config.Auth.properties())
	}
	maps.Copy(broker, r.config.Properties)
	return writeProperties(r.dir.sub("broker.conf"), broker)
}

func (r *RocketMQ) startBroker(ctx context.Context) (err error) {
	options := append([]string{"-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m"}, r.config.JavaOptions...)
	r.broker, err = r.startJava("RocketMQ's broker", "broker", options)
	if err != nil {
		return err
	}
	return r.broker.await(ctx, r.ready)
}

// mains are the classes to run.
var mains = map[string]string{
	"namesrv": "org.apache.rocketmq.namesrv.NamesrvStartup",
	"broker":  "org.apache.rocketmq.broker.BrokerStartup",
}

// startJava starts a server, role being the name of its configuration, its log and its home.
func (r *RocketMQ) startJava(name, role string, options []string) (*process, error) {
	home := r.dir.sub(role)
	if err := errors.Join(os.MkdirAll(home, 0o700), r.dir.ownAll()); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	args := []string{
		"--add-opens", "java.base/java.nio=ALL-UNNAMED",
		"--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED",
		"--add-opens", "java.base/java.util=ALL-UNNAMED",
		"--add-opens", "java.base/java.lang=ALL-UNNAMED",
		"--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED",
		"-XX:+UseSerialGC",
		"-Duser.home=" + home, // where it puts its logs
		"-Drocketmq.home.dir=" + home,
		"-Drmq.logback.configurationFile=rmq." + role + ".logback.xml",
	}
	args = append(args, options...)
	args = append(args, "-cp", filepath.Join(r.jars, "*"), mains[role], "-c", r.dir.sub(role+".conf"))
	cmd := exec.Command(r.java, args...)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.dir.owner}
	return startProcess(name, cmd, r.dir.sub(role+".log"), syscall.SIGKILL)
}

// ready tells whether the broker says that it is up, and the name server knows it.
func (r *RocketMQ) ready(ctx context.Context) error {
	if r.names.ended() {
		return r.names.failure("did not start")
	}
	if !bytes.Contains(r.broker.output(), []byte("boot success")) {
		return errors.New("it has not booted")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	brokers, err := brokersOf(ctx, r.NameServer())
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

// brokersOf asks a name server for the brokers that it knows.
func brokersOf(ctx context.Context, nameServer string) (map[string]remoting.BrokerData, error) {
	conn, err := remoting.Dial(ctx, nameServer, remoting.Credentials{}, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := conn.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err != nil {
		return nil, err
	}
	var cluster remoting.Cluster
	if err := remoting.DecodeJSON(answer.Body, &cluster); err != nil {
		return nil, err
	}
	return cluster.Brokers, nil
}

// Restart starts the broker on the same port and store, after Kill as well as while it runs: then it is shut down
// first. The name server goes on.
func (r *RocketMQ) Restart(ctx context.Context) error {
	if err := r.broker.stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	return r.startBroker(ctx)
}

// Kill ends the broker with SIGKILL.
func (r *RocketMQ) Kill() { r.broker.kill() }

// Pause stops the broker where it is, as on a frozen machine: nothing is answered, nothing closed. Connections can
// still be opened, as the kernel does that.
func (r *RocketMQ) Pause() error { return r.broker.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (r *RocketMQ) Continue() error { return r.broker.signal(syscall.SIGCONT) }

// Stop shuts the broker down, which takes it some seven seconds, ends the name server, which has nothing to save, and
// removes a temporary directory. A broker that still runs when ctx ends is killed; so is one whose data goes anyway, at
// once. Only the first call does anything.
func (r *RocketMQ) Stop(ctx context.Context) error {
	if r.dir.temporary {
		r.kill()
		return r.dir.close()
	}
	err := r.broker.stop(ctx, syscall.SIGTERM)
	r.names.kill()
	return errors.Join(err, r.dir.close())
}

func (r *RocketMQ) kill() {
	for _, p := range []*process{r.broker, r.names} {
		if p != nil {
			p.kill()
		}
	}
}

func (r *RocketMQ) store() string { return r.dir.sub("store") }

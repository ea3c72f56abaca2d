package frame

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// usage is the CPU time and WAL since a start.
type usage struct {
	postgres, client, server time.Duration // CPU
	wal                      int64         // bytes
}

func (u usage) minus(v usage) usage {
	return usage{u.postgres - v.postgres, u.client - v.client, u.server - v.server, u.wal - v.wal}
}

// meter reads the CPU time of PostgreSQL, this process and the broker from /proc, so they have to run on this machine. What it
// can't read counts as 0.
type meter struct {
	pool     *pgxpool.Pool
	postgres int // pid of the postmaster
	broker   int
}

func newMeter(ctx context.Context, b *Bed) (meter, error) {
	m := meter{pool: b.Pool}
	var backend int
	if err := m.pool.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return m, fmt.Errorf("find Postgres' process: %w", err)
	}
	if s, ok := readStat(backend); ok && s.name == "postgres" {
		m.postgres = s.parent
	}
	address, err := brokerAddress(ctx, b.NameServers[0])
	if err != nil {
		return m, fmt.Errorf("find the broker: %w", err)
	}
	m.broker = listener(address)
	return m, nil
}

// read returns the present usage. server 0 stands for the broker.
func (m meter) read(ctx context.Context, server int) (usage, error) {
	var u usage
	if err := m.pool.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&u.wal); err != nil {
		return u, fmt.Errorf("read position of the WAL: %w", err)
	}
	if server == 0 {
		server = m.broker
	}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		s, ok := readStat(pid)
		if !ok {
			continue
		}
		switch {
		case m.postgres != 0 && pid == m.postgres:
			u.postgres += s.own + s.ended // includes backends that have ended
		case m.postgres != 0 && s.parent == m.postgres:
			u.postgres += s.own
		case pid == server:
			u.server += s.own
		}
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return u, fmt.Errorf("read own CPU: %w", err)
	}
	u.client = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return u, nil
}

// stat is a part of /proc/PID/stat.
type stat struct {
	name       string
	parent     int
	own, ended time.Duration // CPU of the process, and of its children that have ended
}

func readStat(pid int) (stat, bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')') // the name may contain anything
	if err != nil || open < 0 || end < open {
		return stat{}, false
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 15 {
		return stat{}, false
	}
	ticks := func(i int) time.Duration {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		return time.Duration(n) * (time.Second / 100) // USER_HZ is 100 wherever Go runs on Linux
	}
	s := stat{name: string(raw[open+1 : end]), own: ticks(11) + ticks(12), ended: ticks(13) + ticks(14)}
	s.parent, _ = strconv.Atoi(fields[1])
	return s, true
}

func brokerAddress(ctx context.Context, nameServer string) (string, error) {
	conn, err := remoting.Dial(ctx, nameServer, remoting.Credentials{}, nil)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	response, err := conn.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err != nil {
		return "", err
	}
	var cluster remoting.Cluster
	if err := remoting.DecodeJSON(response.Body, &cluster); err != nil {
		return "", err
	}
	for _, b := range cluster.Brokers {
		return b.Master(), nil
	}
	return "", fmt.Errorf("name server %s has no broker", nameServer)
}

// listener returns the id of the process on this machine that listens on the port of an address, or 0.
func listener(address string) int {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	number, _ := strconv.Atoi(port)
	suffix, socket := fmt.Sprintf(":%04X", number), ""
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, _ := os.ReadFile(table)
		for line := range strings.Lines(string(raw)) {
			const listening = "0A"
			if f := strings.Fields(line); len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], suffix) {
				socket = "socket:[" + f[9] + "]"
			}
		}
	}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && target == socket {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			return pid
		}
	}
	return 0
}

package devstack_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// The servers' data, logs and secrets are closed to other users, and no server runs as root.
func TestDataIsPrivateToItsOwner(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 4*time.Minute)
	config := devstack.Config{Postgres: devstack.PostgresConfig{NoFsync: true}, Embedded: &devstack.EmbeddedConfig{}}
	if testbroker.Real() {
		config.Embedded = nil
		config.RocketMQ.Auth = &devstack.AuthConfig{Admin: rocketmqtest.User{Name: "admin", Secret: "secret"}}
	}
	for what, dir := range map[string]string{"temporary": "", "given": reachable(t)} {
		t.Run(what, func(t *testing.T) {
			config := config
			config.Dir = dir
			stack, err := devstack.Start(ctx, config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := stack.Stop(ctx); err != nil {
					t.Error(err)
				}
			}()
			for _, dir := range []string{stack.Dir(), stack.Postgres.Dir()} {
				wantPrivate(t, dir)
				running := owners(t, dir)
				if len(running) == 0 && dir == stack.Postgres.Dir() {
					t.Error("no server was found")
				}
				for command, uid := range running {
					if os.Geteuid() == 0 && uid == 0 {
						t.Errorf("%s runs as root", command)
					}
				}
			}
		})
	}
}

// A directory that has other files isn't taken over.
func TestConfiguredDirectoryKeepsItsFiles(t *testing.T) {
	t.Parallel()
	dir := reachable(t)
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t, time.Minute)
	stack, err := devstack.Start(ctx, devstack.Config{Dir: dir, Postgres: devstack.PostgresConfig{NoFsync: true}, Embedded: &devstack.EmbeddedConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stack.Stop(context.WithoutCancel(ctx)) }()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() || info.Mode().Perm()&0o740 != 0o740 {
		t.Errorf("the directory is %v of user %d by now", info.Mode(), owner)
	}
	for _, name := range []string{"postgres", "embedded"} {
		wantPrivate(t, filepath.Join(dir, name))
	}
}

// wantPrivate checks a directory that servers were given, with all that we wrote into it.
func wantPrivate(t *testing.T, dir string) {
	t.Helper()
	patterns := []string{dir, dir + "/*.log", dir + "/postgres", dir + "/postgres/*", dir + "/embedded", dir + "/embedded/*", dir + "/rocketmq", dir + "/rocketmq/*.conf", dir + "/rocketmq/*.log"}
	for _, pattern := range patterns {
		paths, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				t.Error(err)
			} else if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s is %v", path, info.Mode())
			}
		}
	}
}

// owners returns the users of the processes whose working directory lies in dir.
func owners(t *testing.T, dir string) map[string]uint32 {
	t.Helper()
	found := map[string]uint32{}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if cwd, err := os.Readlink(link); err != nil || !strings.HasPrefix(cwd, dir) {
			continue
		}
		process := filepath.Dir(link)
		command, _ := os.ReadFile(filepath.Join(process, "cmdline"))
		if info, err := os.Stat(process); err == nil {
			name, _, _ := strings.Cut(string(command), "\x00")
			found[name] = info.Sys().(*syscall.Stat_t).Uid
		}
	}
	return found
}

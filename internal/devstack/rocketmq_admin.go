package devstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Admin runs a command of RocketMQ's mqadmin with the name server's address, and returns what it prints. The command fails by what it
// prints, not by its exit code.
func (r *RocketMQ) Admin(ctx context.Context, args ...string) (string, error) {
	home := r.dir.sub("tools")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", fmt.Errorf("run mqadmin: %w", err)
	}
	if r.is4() {
		if err := writeLog4(home, "tools"); err != nil {
			return "", fmt.Errorf("run mqadmin: %w", err)
		}
	}
	if err := r.dir.chownAll(); err != nil {
		return "", fmt.Errorf("run mqadmin: %w", err)
	}
	cmd := exec.CommandContext(ctx, r.java, append([]string{
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m",
		"-Duser.home=" + home, "-Drocketmq.home.dir=" + home, "-Drmq.logback.configurationFile=rmq.tools.logback.xml",
		"-cp", filepath.Join(r.jars, "*"), "org.apache.rocketmq.tools.command.MQAdminStartup",
	}, append(args, "-n", r.NameServer())...)...)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.dir.owner}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run mqadmin %s: %w%s", args[0], err, lastLines(out))
	}
	return string(out), nil
}

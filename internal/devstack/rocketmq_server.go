package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// javaServer says how to start a server of RocketMQ in a JVM of its own.
type javaServer struct {
	installation
	dir     *directory
	name    string   // for messages
	role    string   // a key of mainClasses
	home    string   // its directory below dir; its configuration is home.conf, and its output goes to home.log
	options []string // of the JVM
}

// mainClasses are the classes to run, by role.
var mainClasses = map[string]string{
	"namesrv": "org.apache.rocketmq.namesrv.NamesrvStartup",
	"broker":  "org.apache.rocketmq.broker.BrokerStartup",
	"proxy":   "org.apache.rocketmq.proxy.ProxyStartup",
}

// configFlags are the flags with which the classes take their configuration.
var configFlags = map[string]string{"namesrv": "-c", "broker": "-c", "proxy": "-pc"}

// fullSpeed is the option of a JVM that compiles what it runs often a second time, and better. Servers of tests live for a minute or two,
// in which that costs more than it gains: a quarter of all CPU where several start at the same time.
const fullSpeed = "-XX:TieredStopAtLevel=4"

// start starts the server and doesn't wait until it is ready.
func (s javaServer) start() (*process, error) {
	home := s.dir.sub(s.home)
	if err := errors.Join(os.MkdirAll(home, 0o700), s.configureLog(home), s.dir.chownAll()); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	args := []string{
		"--add-opens", "java.base/java.nio=ALL-UNNAMED",
		"--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED",
		"--add-opens", "java.base/java.util=ALL-UNNAMED",
		"--add-opens", "java.base/java.lang=ALL-UNNAMED",
		"--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED",
		"-XX:+UseSerialGC",
		"-XX:TieredStopAtLevel=1", // see fullSpeed
		"-Duser.home=" + home,     // for its logs
		"-Drocketmq.home.dir=" + home,
		"-Drmq.logback.configurationFile=rmq." + s.role + ".logback.xml",
	}
	args = append(args, s.options...)
	args = append(args, "-cp", filepath.Join(s.jars, "*"), mainClasses[s.role], configFlags[s.role], s.dir.sub(s.home+".conf"))
	cmd := exec.Command(s.java, args...)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.dir.owner}
	return startProcess(s.name, cmd, s.dir.sub(s.home+".log"), syscall.SIGKILL)
}

// log4 is the configuration of the log of a program of RocketMQ 4, which has none in its jars.
const log4 = `<configuration>
  <appender name="file" class="ch.qos.logback.core.FileAppender">
    <file>${user.home}/logs/rocketmqlogs/%s.log</file>
    <encoder><pattern>%%d{yyyy-MM-dd HH:mm:ss.SSS} %%p %%t - %%m%%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="file"/></root>
</configuration>
`

// writeLog4 writes the configuration of the log of a program of RocketMQ 4.
func writeLog4(home, role string) error {
	conf := filepath.Join(home, "conf")
	if err := os.MkdirAll(conf, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(conf, "logback_"+role+".xml"), fmt.Appendf(nil, log4, role), 0o600)
}

// configureLog writes the configuration of the log if the version needs one.
func (s javaServer) configureLog(home string) error {
	if !s.is4() {
		return nil
	}
	return writeLog4(home, s.role)
}

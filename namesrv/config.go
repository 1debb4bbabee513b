package namesrv

import (
	"os"
	"path"
	"strings"
	"time"

	"rmq/internal/config"
	"rmq/internal/daemon"
)

// Config is what a namesrv.properties says. Names in the tags are the Java property names. A Config
// that [LoadConfig] returns is complete and checked, and is not changed any more.
type Config struct {
	RocketmqHome      string        `prop:"rocketmqHome,important"`
	ListenPort        int           `prop:"listenPort,important,min=1,max=65535"`
	BindAddress       string        `prop:"bindAddress"`               // "": all addresses
	KVConfigPath      string        `prop:"kvConfigPath,important"`    // ~/namesrv/kvConfig.json
	ConfigStorePath   string        `prop:"configStorePath,important"` // ~/namesrv/namesrv.properties; keeps what was changed at run time
	ConfigBlackList   []string      `prop:"configBlackList"`           // keys that are not changed at run time
	ConnectionMaxIdle time.Duration `prop:"serverChannelMaxIdleTimeSeconds,unit=s,min=1"`
	ScanInterval      time.Duration `prop:"scanNotActiveBrokerInterval,unit=ms,min=1"`

	DefaultQueue int `prop:"defaultThreadPoolQueueCapacity,min=1"` // changes of key-value pairs and of the configuration that wait for the disk

	OrderMessages     bool          `prop:"orderMessageEnable,live"`             // routes carry the order of a topic's queues
	ReturnOrderTopics bool          `prop:"returnOrderTopicConfigToBroker,live"` // and so do answers to registrations
	AllTopicList      bool          `prop:"enableAllTopicList,live"`
	TopicList         bool          `prop:"enableTopicList,live"`
	NeedWait          bool          `prop:"needWaitForService"` // routes are not told before WaitFor is over
	WaitFor           time.Duration `prop:"waitSecondsForService,unit=s"`
	DeleteTopics      bool          `prop:"deleteTopicWithBrokerRegistration,live"` // a registration removes topics that it does not name

	Controller bool `prop:"enableControllerInNamesrv"` // refused

	daemon.Config
}

// Settings are the values of all keys of a name server, each with its origin.
type Settings = config.Values[Config]

// LoadOptions say where a configuration comes from: the environment (ROCKETMQ_HOME) covers the
// defaults, the file covers the environment, flags cover the file.
type LoadOptions struct {
	File   string // its name in messages
	Text   []byte // what it says
	Flags  []config.Setting
	Strict bool                     // an unknown key is an error, not a notice
	Getenv func(name string) string // nil: os.Getenv
}

// DefaultConfig is what holds where nobody says anything, for a user whose home directory is home.
func DefaultConfig(home string) Config {
	return Config{
		Config:     daemon.DefaultConfig(),
		ListenPort: 9876, KVConfigPath: path.Join(home, "namesrv/kvConfig.json"), ConfigStorePath: path.Join(home, "namesrv/namesrv.properties"),
		ConfigBlackList:   []string{"configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"},
		ConnectionMaxIdle: 120 * time.Second, ScanInterval: 5 * time.Second,
		DefaultQueue:      10_000,
		ReturnOrderTopics: true, AllTopicList: true, TopicList: true, WaitFor: 45 * time.Second,
	}
}

// LoadConfig reads and checks a configuration. The error joins a [config.ValueError] for everything
// that is wrong; the notices are for the log.
func LoadConfig(o LoadOptions) (*Settings, []config.Notice, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	file, err := config.FileSettings(o.File, o.Text)
	if err != nil {
		return nil, nil, err
	}
	env := config.EnvSettings(o.Getenv, map[string]string{"ROCKETMQ_HOME": "rocketmqHome"})
	return keys().Load(DefaultConfig(o.Getenv("HOME")), o.Strict, env, file, o.Flags)
}

// KeyNames lists all keys that have an effect.
func KeyNames() []string { return keys().Names() }

// KnownKeys lists all keys that a name server accepts.
func KnownKeys() []config.Known { return keys().Known() }

func keys() *config.Keys[Config] {
	return config.KeysOf(config.Spec[Config]{
		Inert: inert,
		Complete: func(c *Config, r *config.Review) {
			c.Review(r)
			if !daemon.IsAddress(c.BindAddress) {
				r.Refuse("bindAddress", "use one address without a port")
			}
			for _, p := range [][2]string{{"kvConfigPath", c.KVConfigPath}, {"configStorePath", c.ConfigStorePath}} {
				if p[1] == "" {
					r.Refuse(p[0], "name a file")
				}
			}
			if c.HTTPPort != 0 && c.HTTPPort == c.ListenPort {
				r.Refuse("httpPort", "listenPort is the same: use another one, or 0 for none")
			}
			if c.Controller {
				r.Refuse("enableControllerInNamesrv", "this version has no controller mode: use false")
			}
		},
		Denied: func(c *Config) []string {
			return append([]string{"configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"}, c.ConfigBlackList...)
		},
	})
}

// inert are the keys of Apache that change nothing here.
var inert = []config.Inert{
	{Why: "there are no acting masters", Keys: strings.Fields("supportActingMaster notifyMinBrokerIdChanged")},
	{Why: "brokers are unregistered at once", Keys: strings.Fields("unRegisterBrokerQueueCapacity")},
	{Why: "there is no product environment to ask", Keys: strings.Fields("clusterTest productEnvName")},
	{Why: "a name server that stops always answers what it has taken", Keys: strings.Fields("enableShutdownGracefully shutdownWaitTimeSeconds")},
	{Why: "connections are served by goroutines", Keys: strings.Fields(`
		clientRequestThreadPoolNums clientRequestThreadPoolQueueCapacity defaultThreadPoolNums
		serverWorkerThreads serverCallbackExecutorThreads serverSelectorThreads serverOnewaySemaphoreValue
		serverAsyncSemaphoreValue serverSocketSndBufSize serverSocketRcvBufSize serverPooledByteBufAllocatorEnable
		useEpollNativeSelector serverSocketBacklog serverNettyWorkerGroupEnable writeBufferHighWaterMark writeBufferLowWaterMark`)},
}

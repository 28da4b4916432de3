module example.invalid/real/faktory-0.9

go 1.25

require github.com/contribsys/faktory v0.9.0-1

require (
	github.com/BurntSushi/toml v1.6.0 // indirect
	github.com/apex/log v1.9.0 // indirect
	github.com/go-redis/redis v6.14.1+incompatible // indirect
	github.com/pkg/errors v0.8.1 // indirect
)

module example.invalid/real/faktory-1.5

go 1.25

require github.com/contribsys/faktory v1.5.5

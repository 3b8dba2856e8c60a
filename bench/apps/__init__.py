"""The workloads as Apiary apps: each folder is one app, deployed as a user would."""

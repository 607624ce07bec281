from $module import ${Part}Config

backbone = ${Part}Config(channels=64).build()

from $module import ${Part}Config

head = ${Part}Config(channels=128)

from $module import ${Part}Config

transform = ${Part}Config(side=0.3, probability=1.0).build()

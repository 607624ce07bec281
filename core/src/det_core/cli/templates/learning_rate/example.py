from $module import ${Part}Config

schedule = ${Part}Config(constant=0.25)

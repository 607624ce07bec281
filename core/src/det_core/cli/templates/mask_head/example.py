from $module import ${Part}Config

head = ${Part}Config(num_convs=4)

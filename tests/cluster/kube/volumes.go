package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	provisioner   = "agentqueue.dev/folders"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	wantedFrom    = "volume.kubernetes.io/storage-provisioner"
)

// folders makes, grows and removes volumes that are folders of this machine. The controller manager's own
// (--enable-hostpath-provisioner) are 0750 and root's, useless to pods that don't run as root.
type folders struct {
	client kubernetes.Interface
	root   string
}

func runVolumes(args []string) int {
	flags := flag.NewFlagSet("volumes", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	root := flags.String("root", "", "the folder that holds the volumes")
	_ = flags.Parse(args[1:])
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fail(err)
	}
	folders{client: kubernetes.NewForConfigOrDie(config), root: *root}.serve(context.Background())
	return 0
}

func (f folders) serve(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(f.client, time.Second) // what failed is tried again at the next resync
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	watch(claims.Informer(), func(claim *core.PersistentVolumeClaim) error { return f.serveClaim(ctx, claim) })
	watch(volumes.Informer(), func(volume *core.PersistentVolume) error { return f.removeReleased(ctx, volume) })
	factory.Start(ctx.Done())
	<-ctx.Done()
}

func watch[T any](informer cache.SharedIndexInformer, act func(*T) error) {
	handle := func(object any) {
		if err := act(object.(*T)); err != nil && !errors.IsConflict(err) {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, object any) { handle(object) },
	})
	if err != nil {
		panic(err) // only after the informer was stopped
	}
}

func (f folders) serveClaim(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	if claim.Annotations[wantedFrom] != provisioner || claim.DeletionTimestamp != nil {
		return nil
	}
	if claim.Spec.VolumeName == "" {
		return f.provision(ctx, claim)
	}
	wanted, have := claim.Spec.Resources.Requests.Storage(), claim.Status.Capacity.Storage()
	if claim.Status.Phase == core.ClaimBound && wanted.Cmp(*have) > 0 {
		return f.grow(ctx, claim)
	}
	return nil
}

func (f folders) provision(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	class, err := f.client.StorageV1().StorageClasses().Get(ctx, *claim.Spec.StorageClassName, meta.GetOptions{})
	if err != nil {
		return err
	}
	name := "pvc-" + string(claim.UID)
	folder := filepath.Join(f.root, name)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o777); err != nil { // past the umask: pods run as any user
		return err
	}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: *claim.Spec.Resources.Requests.Storage()},
			ClaimRef:                      &core.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			PersistentVolumeSource:        core.PersistentVolumeSource{HostPath: &core.HostPathVolumeSource{Path: folder}},
			StorageClassName:              class.Name,
		},
	}
	_, err = f.client.CoreV1().PersistentVolumes().Create(ctx, volume, meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (f folders) grow(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	size := *claim.Spec.Resources.Requests.Storage()
	volumes := f.client.CoreV1().PersistentVolumes()
	volume, err := volumes.Get(ctx, claim.Spec.VolumeName, meta.GetOptions{})
	if err != nil {
		return err
	}
	volume.Spec.Capacity[core.ResourceStorage] = size
	if _, err := volumes.Update(ctx, volume, meta.UpdateOptions{}); err != nil {
		return err
	}
	grown := claim.DeepCopy()
	grown.Status.Capacity[core.ResourceStorage] = size
	grown.Status.Conditions = nil
	_, err = f.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, grown, meta.UpdateOptions{})
	return err
}

func (f folders) removeReleased(ctx context.Context, volume *core.PersistentVolume) error {
	released := volume.Status.Phase == core.VolumeReleased && volume.DeletionTimestamp == nil
	if !released || volume.Annotations[provisionedBy] != provisioner ||
		volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(f.root, volume.Name)); err != nil {
		return err
	}
	err := f.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}
